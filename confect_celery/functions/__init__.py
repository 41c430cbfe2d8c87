"""Functions: what can be called, with what, by whom."""

from confect_celery.functions import codec, failure
from confect_celery.functions.calls import (
    ActionRunner,
    MutationRunner,
    QueryRunner,
    ScheduledTaking,
    SignatureLike,
    TaskLike,
)
from confect_celery.functions.ref import (
    ActionRef,
    FunctionOptions,
    FunctionRef,
    InternalActionRef,
    InternalMutationRef,
    InternalPath,
    Kind,
    MutationRef,
    PublicPath,
    QueryRef,
    Refs,
    Schedulable,
    Visibility,
)
from confect_celery.functions.registry import Group, Registry
from confect_celery.functions.services import Services
from confect_celery.functions.signature import Signature

__all__ = [
    "ActionRef",
    "ActionRunner",
    "FunctionOptions",
    "FunctionRef",
    "Group",
    "InternalActionRef",
    "InternalMutationRef",
    "InternalPath",
    "Kind",
    "MutationRef",
    "MutationRunner",
    "PublicPath",
    "QueryRef",
    "QueryRunner",
    "Refs",
    "Registry",
    "Schedulable",
    "ScheduledTaking",
    "Services",
    "Signature",
    "SignatureLike",
    "TaskLike",
    "Visibility",
    "codec",
    "failure",
]
