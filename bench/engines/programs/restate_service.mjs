// Restate: a handler with as many journaled steps. Listens on the port of its first argument.
import * as restate from "@restatedev/restate-sdk";

const bench = restate.service({
  name: "bench",
  handlers: {
    chain: async (ctx, { nodes }) => {
      let value = 0;
      for (let node = 1; node <= nodes; node += 1) {
        value = await ctx.run(`n${node}`, () => value + 1);
      }
      return value;
    },
  },
});

restate.serve({ services: [bench], port: Number(process.argv[2]) });
