"""The garbage collector of a busy app: a full collection walks all of FastAPI while requests wait."""

import gc
import logging

logger = logging.getLogger("segundo")

DEFAULT_YOUNG = (700, 2000)  # CPython's own first thresholds, before 3.13 and since
YOUNG = 10_000  # objects; requests that wait for the ledger are alive together, and soon after they are not


def spare() -> None:
    """After start-up: leave what is alive now out of every later collection, and look at young objects in
    larger lots.

    An app that has set thresholds of its own keeps them; one that has switched the collector off is left
    alone. A second call spares what has come since.
    """
    if not gc.isenabled():
        return
    gc.collect()
    gc.freeze()
    young, *older = gc.get_threshold()
    if young in DEFAULT_YOUNG:
        gc.set_threshold(YOUNG, *older)
    logger.info("the garbage collector spares the %d objects of the start-up", gc.get_freeze_count())
