"""The live page: reads the wire and streams of its own, and is served by a process of its own."""
