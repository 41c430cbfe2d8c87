"""A connection that stays open between its uses: SQLAlchemy's pool takes 40 to 60 µs to lend one and take it back."""

from __future__ import annotations

import sqlalchemy as sa

__all__ = ["Spare"]


class Spare:
    """Keeps one connection an engine, beside its pool. Who takes it is the only one who has it."""

    def __init__(self) -> None:
        self._kept: dict[sa.Engine, list[tuple[int, sa.Connection]]] = {}
        """By engine, for a forked child has another: what is its parent's it neither uses nor closes."""

    def take(self, engine: sa.Engine, troubles: int) -> sa.Connection:
        """The one that is kept, if nothing has happened since to this process's connections; else one of the pool's."""
        kept = self._kept.get(engine)
        if kept:
            try:
                then, connection = kept.pop()
            except IndexError:  # another thread was quicker
                return engine.connect()
            if then == troubles:
                return connection
            connection.close()  # the pool will see
        return engine.connect()

    def give_back(self, engine: sa.Engine | None, connection: sa.Connection, troubles: int) -> None:
        """Keep it, if none is kept, this process has that engine still, and all is well."""
        connection.rollback()  # of which nobody hears where there is nothing to be rolled back
        kept = self._kept.setdefault(connection.engine, []) if connection.engine is engine else None
        if kept is None or kept or connection.closed:  # one that was invalidated connects anew
            connection.close()
        else:
            kept.append((troubles, connection))

    def close(self, engine: sa.Engine) -> None:
        """Keep none of this engine's any more."""
        for _, connection in self._kept.pop(engine, []):
            connection.close()
