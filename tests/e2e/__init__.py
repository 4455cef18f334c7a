"""The main job on real components: slow, and marked `e2e`."""
