"""The wizard's steps: a module for each, named like its step."""
