"""What the hub answered, or why it did not, in one sentence that says what to do."""

import re
from http import HTTPStatus
from typing import Any

from huggingface_hub import constants, get_token
from huggingface_hub.errors import OfflineModeIsEnabled

from toast_cli.errors import ToastError, causes, did_you_mean, disk_error
from toast_cli.hub.repository import Repository

# Whoever speaks HTTP for huggingface_hub; which of them depends on its version.
_HTTP = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")
_PASSING = (408, 429, 500, 502, 503, 504)
_LONGEST = 200  # letters of what somebody else says


def response_in(error: BaseException) -> Any | None:
    """The hub's answer that ``error`` is about; None if there was none."""
    found = (getattr(link, "response", None) for link in causes(error))
    return next((each for each in found if getattr(each, "status_code", None) is not None), None)


def is_offline(error: BaseException) -> bool:
    """Whether nothing was asked, since the person has set HF_HUB_OFFLINE."""
    return any(isinstance(link, OfflineModeIsEnabled) for link in causes(error))


def is_out_of_reach(error: BaseException) -> bool:
    """Whether nobody answered, or the connection broke."""
    return response_in(error) is None and _connection_in(error) is not None and not is_offline(error)


def is_passing(error: BaseException) -> bool:
    """Whether the same question may well be answered in a few seconds."""
    response = response_in(error)
    return is_out_of_reach(error) if response is None else response.status_code in _PASSING


def is_about_the_hub(error: BaseException) -> bool:
    """Whether ``error`` has to do with the hub or the way to it, and not with what was read."""
    return is_offline(error) or response_in(error) is not None or is_out_of_reach(error)


def has_no_file(error: BaseException) -> bool:
    """Whether the hub has the repository but not the file that was asked for."""
    response = response_in(error)
    return response is not None and response.headers.get("X-Error-Code") == "EntryNotFound"


def timed_out(error: BaseException) -> bool:
    """Whether ``error`` is a wait without an answer."""
    return any(isinstance(link, TimeoutError) or "Timeout" in type(link).__name__ for link in causes(error))


def seconds_asked(error: BaseException) -> float:
    """For how long the hub asks to be left alone, in seconds: its ``Retry-After``, or when its ``RateLimit`` is reset; else 0."""
    response = response_in(error)
    if response is None:
        return 0.0
    after = re.fullmatch(r"\s*(\d+)\s*", response.headers.get("Retry-After", ""))
    after = after or re.search(r"\br=0;t=(\d+)", response.headers.get("RateLimit", ""))
    return float(after[1]) if after else 0.0


def refusal(error: BaseException, asked: Repository) -> ToastError:
    """The sentence about ``error``, which came of asking the hub for a repository or of writing it to the cache."""
    if (disk := disk_error(error)) is not None:
        return ToastError(
            f"{asked} cannot be written to the cache {constants.HF_HOME} ({disk.strerror}): make room, or name another place with HF_HOME; the "
            "files that are there are kept."
        )
    elsewhere = f"run {asked.copied} where there is internet, bring that folder here and {asked.instead}"
    if is_offline(error):
        return ToastError(
            f"HF_HUB_OFFLINE is set, so nothing is fetched, and the cache {constants.HF_HUB_CACHE} does not hold {asked}: unset it; or {elsewhere}."
        )
    response = response_in(error)
    if response is not None:
        return _answer(response, error, asked)
    if is_out_of_reach(error):
        return ToastError(
            f"{asked} is not in the cache {constants.HF_HUB_CACHE}, and {constants.ENDPOINT} cannot be reached ({_connection_in(error)}): try "
            f"again once there is a connection; or {elsewhere}."
        )
    return ToastError(
        f"{asked} could not be fetched from the hub ({type(error).__name__}: {shortened(str(error))}): try again; or {elsewhere}."
    )


def _answer(response: Any, error: BaseException, asked: Repository) -> ToastError:
    """The sentence about an answer that is a refusal."""
    status, code = response.status_code, response.headers.get("X-Error-Code")
    signed = "authorization" in {name.lower() for name in response.request.headers}
    if code == "GatedRepo":
        token = "HF_TOKEN" if not signed else "HF_TOKEN, if it is another account's,"
        return ToastError(
            f"The hub gives {asked} only to users who have accepted its terms: accept them on {asked.page(constants.ENDPOINT)}, then set {token} "
            f"to a token with read access; or {asked.instead} with a copy."
        )
    if status == 401 and signed:
        return ToastError(
            f"The hub does not accept the token that came with the question for {asked} ({told(response, error)}): set HF_TOKEN to a valid one "
            "(https://huggingface.co/settings/tokens), or unset it and run hf auth logout to ask without one."
        )
    if code in ("EntryNotFound", "RevisionNotFound"):
        return ToastError(
            f"The hub has {asked}, but not what is read from it ({told(response, error)}): {asked.instead} with a copy from elsewhere."
        )
    if status in (401, 404):
        hint = did_you_mean(asked.name, asked.relatives)
        private = "; if it is private, set HF_TOKEN to a token that may read it" if not signed else ""
        return ToastError(
            f"The hub has no {asked.what} called {asked}{hint}, or none that it shows you: use a name that exists{private}; or {asked.instead} with a copy."
        )
    if status == 429:
        wait = f"wait {seconds_asked(error):.0f} s" if seconds_asked(error) else "wait some minutes"
        return ToastError(
            f"The hub answered {told(response, error)} to the question for {asked}: {wait} and run the same command again, which keeps the files it "
            "has; with HF_TOKEN set, more is allowed."
        )
    if status in _PASSING or status >= 500:
        return ToastError(
            f"The hub is in trouble, it answered {told(response, error)} to the question for {asked}: run the same command again later, which "
            f"keeps the files it has; or {asked.instead} with a copy from elsewhere."
        )
    return ToastError(
        f"The hub refuses {asked} ({told(response, error)}): see that HF_TOKEN may read it; or {asked.instead} with a copy from elsewhere."
    )


def told(response: Any, error: BaseException) -> str:
    """``404 Not Found, Entry not found``: the status, and what the hub said of it."""
    status = HTTPStatus(response.status_code)
    said = response.headers.get("X-Error-Message") or next(
        (each for link in causes(error) if (each := getattr(link, "server_message", None))), ""
    )
    return f"{status.value} {status.phrase}{', ' * bool(said)}{shortened(said.rstrip('.'))}"


def in_short(error: BaseException) -> str:
    """The hub's answer, or why there is none, in a few words."""
    response = response_in(error)
    return told(response, error) if response is not None else _connection_in(error) or type(error).__name__


def shortened(text: str, most: int = _LONGEST) -> str:
    """``text`` in one line of whole words, at most ``most`` letters, without the person's token: some libraries quote headers."""
    if token := get_token():
        text = text.replace(token, "<token>").replace(repr(token)[1:-1], "<token>")
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1].rpartition(" ")[0].rstrip(",;:") + "…"


def _connection_in(error: BaseException) -> str | None:
    """The first cause of a broken connection, such as ``ConnectError: [Errno 111] Connection refused``; None for anything else."""
    for link in causes(error):
        ours = isinstance(link, ConnectionError | TimeoutError) and link.errno is not None
        if ours or type(link).__module__.partition(".")[0] in _HTTP:
            said = shortened(re.sub(r"^\[Errno -?\d+\] ", "", str(link)), 100)
            return f"{type(link).__name__}{': ' * bool(said)}{said}"
    return None
