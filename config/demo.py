"""The embedded settings, but a message lost with a killed worker comes again within seconds: a demo is short."""

from __future__ import annotations

from config.embedded import *  # noqa: F403

confect_horizon = 2
confect_redelivery = 5
