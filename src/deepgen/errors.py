"""The errors deepgen raises on purpose: one line that says what is wrong, where, and what to do."""


class DeepGenError(Exception):
    """Base of every error that is the user's or the environment's to mend; the CLI prints it as one line."""


class CheckpointError(DeepGenError):
    """A checkpoint on disk is missing, incomplete, damaged or of an unknown layout."""


class ConfigError(DeepGenError):
    """A configuration value is unknown or out of range; names the key's path."""


class InputError(DeepGenError):
    """A prompt, picture, size or other argument cannot be used."""


class OutputError(DeepGenError):
    """A picture or a report cannot be written: no space, no permission, or no folder."""


class DataError(DeepGenError):
    """Training or benchmark data is missing, malformed or over its budget of broken samples."""


class RewardError(DeepGenError):
    """A reward could not be configured or its service answers wrongly."""


class JudgeError(DeepGenError):
    """A judge could not be reached or its reply cannot be used."""
