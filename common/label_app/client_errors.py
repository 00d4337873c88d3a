"""Bad input, told to whoever sent it."""

from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import HTTPException

from ..errors import InputError


@contextmanager
def told_to_the_client() -> Iterator[None]:
    """Answer bad input with its one sentence, where MONAI Label would say "Internal Server Error".

    Bundles that are packages have an `InputError` of their own, so that it is known by its name.
    """
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and type(cause).__name__ != InputError.__name__:
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            raise
        raise HTTPException(status_code=400, detail=str(cause)) from error
