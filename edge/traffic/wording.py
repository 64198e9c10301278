"""Wording: what a page says to a person, one row per error code.

The rows of ``edge/core/errors.py`` speak to programs and to those who write them. Whoever opens a
preview in a browser often is neither: these say what happened, whether waiting helps, and what to do.
``{port}`` becomes "port 3000", or "this port" where the number is not known. What stands between
backticks is shown as code.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Retry(StrEnum):
    """How a page gets its visitor to the app, once the cause is gone."""

    ALONE = "alone"
    """It tries again by itself. Only where the app has not seen the request, or a drain ended it: an
    app that hangs up or takes too long is not helped by repeats."""
    BY_HAND = "by hand"
    """A link tries again. The cause can go away, and the address stays good."""
    NEVER = "never"
    """This address will not work again; another one may."""


class Symbol(StrEnum):
    """The drawing above the title; each is a block of ``page/page.html``."""

    ASLEEP = "asleep"
    BUSY = "busy"
    PLUG = "plug"
    KEY = "key"
    LOST = "lost"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Words:
    """What one page says: a title, a paragraph, and what its visitor can do."""

    symbol: Symbol
    retry: Retry
    title: str
    text: str
    hints: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()


_ASK = "Ask whoever shared the link for a new one, or get one from the API."
_WHOLE = "Open the whole link, with everything behind the question mark."
_TELL = "If this goes on for some minutes, tell the operator, with the request id below."
_LOG = "Look at the app's log, inside the sandbox."


def _key(title: str, text: str, *hints: str) -> Words:
    return Words(Symbol.KEY, Retry.NEVER, title, text, hints)


def _switched_off(title: str, text: str) -> Words:
    return Words(Symbol.KEY, Retry.BY_HAND, title, text, ("Ask the operator to enable it again.",))


def _waiting(symbol: Symbol, title: str, text: str, *hints: str) -> Words:
    return Words(symbol, Retry.ALONE, title, text, hints)


def _proxy(title: str) -> Words:
    # Proxy mode gets JSON; these are here so that no code is without words.
    text = "Another program stands between your browser and this preview, and it was not let in."
    return _key(title, text, "Tell whoever runs that program, with the code below.")


WORDS: dict[str, Words] = {
    # --- Credentials ----------------------------------------------------------------------------------
    "edge_token_missing": _key(
        "This preview needs its link",
        "Previews are private. The address alone does not open one, and a link that did so before may "
        "have run out.",
        _WHOLE,
        "If you see this inside another page, open the link in a tab of its own.",
        _ASK,
    ),
    "edge_token_invalid": _key(
        "This link does not work",
        "It was cut short or changed on its way here, or it was made for another place.",
        _WHOLE,
        _ASK,
    ),
    "edge_token_expired": _key(
        "This link has expired",
        "Preview links are good for a limited time only. The sandbox itself may be fine.",
        _ASK,
    ),
    "edge_token_scope_mismatch": _key(
        "This link is for something else",
        "It is genuine, but it was made for another sandbox or another port.",
        "Use the link exactly as you were given it.",
        _ASK,
    ),
    "preview_grant_invalid": _key(
        "This link is no longer known",
        "What it was based on does not exist any more.",
        _ASK,
    ),
    "preview_grant_revoked": _key(
        "This link was withdrawn",
        "Whoever manages the sandbox has revoked it.",
        _ASK,
    ),
    "preview_grant_disabled": _switched_off(
        "This link is switched off",
        "An operator has disabled it for now.",
    ),
    "preview_sandbox_disabled": _switched_off(
        "Previews of this sandbox are switched off",
        "An operator has disabled them for now.",
    ),
    "preview_proxy_token_missing": _proxy("A token is missing"),
    "preview_proxy_token_invalid": _proxy("A token does not work"),
    "preview_proxy_token_expired": _proxy("A token has expired"),
    "preview_proxy_token_revoked": _proxy("A token was withdrawn"),
    "preview_proxy_token_scope_mismatch": _proxy("A token is for something else"),
    "preview_proxy_token_disabled": _proxy("A token is switched off"),
    "traffic_access_token_missing": _key(
        "This sandbox is not open to browsers",
        "Its traffic is not public: every request needs a second token in a header, and a browser "
        "sends none.",
        "Reach it through a program that sends `x-nullspace-traffic-access-token`.",
        "Or create the sandbox with `allow_public_traffic`, so that the link is enough.",
    ),
    "traffic_access_token_invalid": _key(
        "This sandbox did not let you in",
        "Its traffic is not public, and the token in `x-nullspace-traffic-access-token` is not its own.",
        "Use the token that came with the sandbox when it was created.",
    ),
    # --- What was asked for ---------------------------------------------------------------------------
    "preview_host_unknown": Words(
        Symbol.LOST,
        Retry.NEVER,
        "There is no preview at this address",
        "The address of a preview begins with a port and the name of a sandbox. This one does not.",
        ("Use the link exactly as you were given it.",),
    ),
    "unsupported_preview_port": Words(
        Symbol.PLUG,
        Retry.NEVER,
        "There is no preview of {port}",
        "Some ports are never shown, because they serve other purposes: 22 and 5900 to 5999.",
        (
            "Let the app listen on another port, such as 3000 or 8080.",
            "Then get a link for that port.",
        ),
    ),
    "sandbox_not_found": Words(
        Symbol.LOST,
        Retry.NEVER,
        "This sandbox is gone",
        "It was destroyed, or there never was one of that name. It does not come back.",
        ("Create a new sandbox, and open the link to its preview.",),
    ),
    "bad_request": Words(
        Symbol.BROKEN,
        Retry.NEVER,
        "The request could not be read",
        "What arrived here is not well-formed HTTP.",
        ("Try without extensions and proxies of your browser.",),
    ),
    "method_not_allowed": Words(
        Symbol.BROKEN,
        Retry.NEVER,
        "That does not work in a preview",
        "The request has a method that previews do not pass on.",
    ),
    "request_timeout": Words(
        Symbol.BUSY,
        Retry.BY_HAND,
        "The request did not arrive in time",
        "Your connection may be slow, or it stood still for a while.",
    ),
    "request_header_too_large": Words(
        Symbol.BROKEN,
        Retry.BY_HAND,
        "The request is too large",
        "Its address or its header fields are longer than what is passed on. Often it is cookies that "
        "have piled up.",
        ("Clear this site's cookies in your browser, then try again.",),
    ),
    "preview_loop": Words(
        Symbol.BROKEN,
        Retry.NEVER,
        "This preview leads back to itself",
        "The app passes requests on to its own preview, so they would go round for ever.",
        ("Let the app talk to `localhost` instead of its own preview address.",),
    ),
    # --- Waking ---------------------------------------------------------------------------------------
    "sandbox_paused_auto_resume_disabled": Words(
        Symbol.ASLEEP,
        Retry.BY_HAND,
        "This sandbox is paused",
        "It does not wake by itself when somebody opens its preview.",
        (
            "Resume it where you manage your sandboxes or through the API, then try again.",
            "A sandbox created with `auto_resume` wakes by itself.",
        ),
    ),
    "sandbox_resume_timeout": _waiting(
        Symbol.ASLEEP,
        "The sandbox is waking up",
        "It was asleep, and it takes longer than usual until its app is ready. There is nothing you "
        "need to do.",
        "If this goes on for some minutes, look whether the app in the sandbox still runs.",
    ),
    "sandbox_resume_failed": _waiting(
        Symbol.ASLEEP,
        "The sandbox did not wake up",
        "It was asleep, and waking it failed. The next try may succeed.",
        _TELL,
    ),
    "control_plane_unavailable": _waiting(
        Symbol.BUSY,
        "The sandbox cannot be reached right now",
        "The service that looks after sandboxes does not answer. This is not the fault of your app.",
        _TELL,
    ),
    "preview_overloaded": _waiting(
        Symbol.BUSY,
        "Too busy right now",
        "More requests came than there is room for. It usually passes soon.",
        _TELL,
    ),
    "wake_suppressed_by_policy": _waiting(
        Symbol.ASLEEP,
        "The sandbox is asleep",
        "Your browser loaded this page ahead of time, and that alone does not wake it. Now that you "
        "are here, it will.",
    ),
    "edge_draining": _waiting(
        Symbol.BUSY,
        "Back in a moment",
        "The server that shows previews is being restarted. Your sandbox is not affected.",
    ),
    "sandbox_not_ready": _waiting(
        Symbol.ASLEEP,
        "The sandbox is being created",
        "It is new, and not ready yet. There is nothing you need to do.",
    ),
    "sandbox_error": Words(
        Symbol.BROKEN,
        Retry.NEVER,
        "This sandbox has failed",
        "It is in an error state and does not come back from it by itself.",
        (
            "Its lifecycle events say what happened.",
            "Destroy it and create another one.",
        ),
    ),
    # --- The app --------------------------------------------------------------------------------------
    "preview_service_not_ready": Words(
        Symbol.PLUG,
        Retry.ALONE,
        "Nothing listens on {port}",
        "The sandbox is running, but no app accepts connections on {port} yet.",
        (
            "Start your app on {port}.",
            "Let it listen on `0.0.0.0`, not on `localhost` only.",
        ),
        (
            "npm run dev -- --host 0.0.0.0 --port {number}",
            "flask run --host 0.0.0.0 --port {number}",
            "python3 -m http.server --bind 0.0.0.0 {number}",
        ),
    ),
    "edge_runtime_host_unreachable": _waiting(
        Symbol.BUSY,
        "The sandbox cannot be reached right now",
        "There is no way to the machine it runs on. This is not the fault of your app.",
        _TELL,
    ),
    "preview_upstream_closed": Words(
        Symbol.BROKEN,
        Retry.BY_HAND,
        "The app hung up",
        "It took the request and closed the connection before it answered. It may have crashed, or it "
        "is restarting.",
        (_LOG,),
    ),
    "preview_upstream_invalid": Words(
        Symbol.BROKEN,
        Retry.BY_HAND,
        "The app's answer cannot be read",
        "Something listens on this port, but what it sends is not well-formed HTTP.",
        (
            "Is it a web server? This preview shows nothing else.",
            "Does it serve HTTPS? Let it serve plain HTTP; the preview takes care of the rest.",
            _LOG,
        ),
    ),
    "preview_upstream_timeout": Words(
        Symbol.BROKEN,
        Retry.BY_HAND,
        "The app does not answer",
        "It took the request, and then nothing came for a long time.",
        (_LOG,),
    ),
}
