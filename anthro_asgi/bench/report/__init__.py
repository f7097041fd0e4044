"""`anthro-asgi bench report FILE…`: the results of `bench load` as one HTML page."""
