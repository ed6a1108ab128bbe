"""The error of a request to the fake, for every API generation."""

__all__ = ["ApiErrorResponse"]


class ApiErrorResponse(Exception):
    """A request that fails, with the status and message of the error response."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
