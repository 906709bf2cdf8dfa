"""Refusals: whether a text declines to answer, by how it begins, in English, German, French, Spanish and Chinese. Pure."""

import re

BEGINNING_CHARS = 160
"""Who refuses says so at once."""
TEXT_CHARS_MAX = 1_000
"""A longer text has an answer in it, whatever it begins with."""

_DECLINES = re.compile(
    r"i(?:'m| am) (?:very |really |truly )?(?:sorry|afraid)[^.!?\n]{0,60}"
    r"\b(?:can(?:no|')t|cannot|unable|not able|won't|not comfortable)"
    r"|\bi (?:can(?:no|')t|cannot|won't|will not|am (?:unable|not able) to|'m (?:unable|not able) to) "
    r"(?:help|assist|answer|provide|comply|do that|fulfil|discuss|create|write|engage|give|share|support)"
    r"|\bi(?:'m| am) (?:unable|not able) to\b|\bi (?:do not|don't) (?:know|have (?:enough|access|that|this|the) )"
    r"|(?:tut|es tut) mir (?:sehr )?leid[^.!?\n]{0,60}\b(?:kann|darf)\b[^.!?\n]{0,60}\bnicht\b"
    r"|\bich (?:kann|darf) (?:dir|ihnen|euch|das|diese|dabei|darauf)[^.!?\n]{0,60}\bnicht\b|\bich weiß (?:es |das )?nicht\b"
    r"|\bje (?:suis désolé|regrette)[^.!?\n]{0,60}\b(?:ne (?:peux|puis)|impossible)|\bje ne (?:peux|puis|sais) pas\b"
    r"|\blo siento[^.!?\n]{0,60}\bno puedo\b|\bno puedo (?:ayudar|responder|proporcionar|hacer)|\bno lo sé\b"
    r"|抱歉[^。!?\n]{0,30}(?:不能|无法)|我(?:不能|无法)(?:帮助|回答|提供|协助)|我不知道",
)


def declines(text: str) -> bool:
    """Whether a text is a refusal, or says that it does not know."""
    stripped = text.strip()
    if not stripped or len(stripped) > TEXT_CHARS_MAX:
        return False
    return _DECLINES.search(stripped[:BEGINNING_CHARS].lower().replace("\u2019", "'")) is not None
