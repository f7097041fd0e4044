from . import NewPump, NewThread

INTERFACE: int
Pump: NewPump  # two types; the protocols describe how instances are made
Thread: NewThread
