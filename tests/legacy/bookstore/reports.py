from . import journal
from .celeryapp import app


@app.task(name="reports.stock")
def stock():
    journal.write("stock")


@app.task(name="reports.nightly", ignore_result=True)
def nightly():
    journal.write("nightly")


@app.task(name="reports.native", confect_capture="off")
def native(what):
    journal.write(f"native {what}")


@app.task(name="reports.always", confect_capture="durable")
def always(what):
    journal.write(f"always {what}")
