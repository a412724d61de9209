"""The sides of a comparison, one file each; a framework is imported only when its runner runs."""
