from streams.lsl.inlets import quieten

quieten()
