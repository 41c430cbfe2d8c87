"""A small bookshop as many are: Celery tasks in several modules, retries, canvas, beat; nothing of Confect's style.

Only `celeryapp.py` knows of Confect, by the one line that a shop adds.
"""
