"""The one exception for bad input: files, folders, landmarks and settings that a user can mend."""


class InputError(ValueError):
    """Bad input, told in one sentence: the file, what is wrong with it, and what to do."""
