"""`python -m tasks.demo`: the play, and the verdict.

Exit codes: 0 when everything ended as it should, 1 when not, 128 + n when signal n ended it.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from tasks.demo.expectations import problems
from tasks.demo.ledger import look
from tasks.demo.processes import Died
from tasks.demo.stage import Interrupted, LiveStage
from tasks.demo.story import Story
from tasks.demo.view import View

_LONGEST_SECONDS: Final = 52.0
"""What has not ended after that long is told as a problem."""

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    """Run the demo; gives back its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tasks.demo", description="The reference shop, live.")
    parser.add_argument("--files", action="store_true", help="use a folder as the broker even where Valkey is there")
    files = parser.parse_args().files
    directory = Path(tempfile.mkdtemp(prefix="confect-demo-"))
    view = View()
    stage = LiveStage(directory, view, files=files)
    for number in _SIGNALS:
        signal.signal(number, stage.on_signal)
    code, keep = 1, True
    try:
        with view:
            wrong = _play(stage, view)
        if not wrong:
            code, keep = 0, False
        for problem in wrong:
            view.say(problem, "red")
        if wrong:
            view.say(f"{len(wrong)} things are not as they should be.", "bold red")
        else:
            view.say("Every row ended as it should: nothing lost, nothing doubled.", "bold green")
    except Interrupted as interrupted:
        code, keep = 128 + interrupted.args[0], False
        view.say(f"Interrupted by {signal.Signals(interrupted.args[0]).name}.", "yellow")
    except Died as error:
        view.say(str(error), "red")
    except SystemExit:  # rich's word for nobody reading on, as in `make demo | head`
        keep = False
        raise
    finally:
        stage.close()
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # nothing is left to end
        if keep:
            view.say(f"The logs and the database are kept in {directory}", "red")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    return code


def _play(stage: LiveStage, view: View) -> list[str]:
    """The whole story; gives back what came out wrong."""
    end = time.monotonic() + _LONGEST_SECONDS
    if not stage.open():
        return ["The broker or the worker was not ready in time."]
    story = Story(stage, view)
    for condition in story.tell():
        if not stage.until(condition, end - time.monotonic()):
            return ["The story could not be told to its end in time."]
    stage.until(lambda: not problems(story.expected, look(view.names, stage.worker_logs())), end - time.monotonic())
    # Once more when the worker has ended: by then a duplicate would have shown itself.
    stage.stop_worker()
    stage.show()
    found = look(view.names, stage.worker_logs())
    waited = story.waited(found.rows)
    view.table("_scheduled_functions after", found.rows, waited)
    view.sum_up(found.rows, waited)
    return problems(story.expected, found)


if __name__ == "__main__":
    sys.exit(main())
