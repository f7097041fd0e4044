from collections.abc import Callable

from . import Owner
from . import Pump as PumpProtocol
from . import Thread as ThreadProtocol

INTERFACE: int

def Pump(  # noqa: N802 - a type; what it makes is described by the protocol of the same name
    owner: Owner,
    time: Callable[[], float] | None,
    write: Callable[[bytes], None],
    unsent: Callable[[], int],
    closing: Callable[[], bool],
    fd: int,
) -> PumpProtocol: ...
def Thread() -> ThreadProtocol: ...  # noqa: N802 - as above
