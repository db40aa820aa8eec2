"""`python -m examples.demo`: see the package's own docstring."""

import asyncio
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from examples.demo.run import Run
from examples.demo.settings import Settings
from scripts.services import NotInstalled, install


async def main(settings: Settings) -> int:
    """Remove what the run left behind, unless there is something to look into."""
    task = asyncio.current_task()
    assert task
    for number in (signal.SIGINT, signal.SIGTERM):  # by name: who starts it in the background ignores Ctrl+C
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    folder = Path(tempfile.mkdtemp(prefix="segundo-demo-"))
    run, code = Run(settings, folder), 1
    try:
        code = await run.play()
    except asyncio.CancelledError:  # Ctrl+C, or SIGTERM
        code = 130
    except (RuntimeError, TimeoutError) as error:  # something did not start
        run.say(f"the demo could not go on: {error}")
    finally:
        if code == 1:
            run.say(f"files, emails and the output of all programs are kept in {folder}")
        else:
            shutil.rmtree(folder)
    return code


def prepared() -> Settings:
    """What is to run, its servers installed. Ends the program, with what to do, if that cannot be."""
    try:
        settings = Settings.from_environment()
        install(settings.engine.services)
        for service in settings.engine.services:
            service.check()
    except (ValueError, NotInstalled) as error:
        sys.exit(f"make demo: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"make demo: {' '.join(error.cmd)} ended with exit code {error.returncode}; see above")
    except KeyboardInterrupt:
        sys.exit(130)
    return settings


sys.exit(asyncio.run(main(prepared())))
