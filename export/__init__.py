"""The artefact: bundle on disk, graph, backends, parity gate."""
