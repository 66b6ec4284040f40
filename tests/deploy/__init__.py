"""Images and manifests: what `deploy/` and the files at the root promise of an installation."""
