"""Running a graph: the step executor, the nodes, and the events that they leave."""
