"""`celery -A shop confect …`: a plugin of Celery's command line."""

from confect_celery.cli.changing import cancel, reschedule, retry, run_now
from confect_celery.cli.crons import crons
from confect_celery.cli.doctor import check
from confect_celery.cli.figures import stats
from confect_celery.cli.group import confect
from confect_celery.cli.listing import list_, show
from confect_celery.cli.running import dispatch, migrate

__all__ = ["confect"]

for _command in (list_, show, cancel, run_now, reschedule, retry, stats, crons, check, dispatch, migrate):
    confect.add_command(_command)
