"""What stops a benchmark: a figure that cannot be had honestly is an error, not a figure."""


class BenchError(Exception):
    """The run is void, and the message says why. Nothing of it is written to the results."""


class Skipped(Exception):
    """This machine cannot run the part, and the message says why. Printed, and written as "not measured"."""
