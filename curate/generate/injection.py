"""Orders to a language model that stand in a document: where they are, and what is left without them.

A sentence is an order when it speaks to a model or about its task: to set instructions aside, to play a part, to answer
with, append or leave out something, a forged turn of a chat, a forged end of the document, a block of base64. What stands in
quotation marks is talked about, not said ("the phrase 'ignore previous instructions' is an example"). Letters from other
scripts that look Latin, and words written l i k e t h i s, are read as they look.

Patterns tell the usual ones; a crawl study found 54 templates behind 95 % of what is out there. `gate.py` uses this in one
direction only: what a source says in such a sentence is not vouched for, and an output that says it is refused.
"""

from __future__ import annotations

import re
import unicodedata

_NOUN = r"(?:instructions?|prompts?|rules?|guidelines?|directions?|rubric|messages?|commands?|orders?|directives?|requests?|tasks?|context|constraints?|polic(?:y|ies)|restrictions?|training|programming)"
_SET_ASIDE = r"(?:ignor\w*|disregard\w*|forget\w*|overrid\w*|bypass\w*|neglect|drop|discard|cancel|skip|suspend|erase|supersed\w*|replac\w*|stop following|do(?:n't| not) (?:follow|obey|heed))"
_OUTPUT = r"(?:answer|repl(?:y|ies)|response|output|rewrit\w*|rewritten \w+|version|summary|summari[sz]ation|paraphrase|translation|text|draft|revision|edit|result|completion|passage|article|paragraph)"
_MODEL = r"(?:a\.?i\.?|artificial intelligence|ll?ms?|language models?|chat ?bots?|chatgpt|gpt(?:-?\d\w*)?|claude|gemini|llama|copilot|assistants?|(?:rewriting|editing|paraphrasing|summari[sz]ing|text|automated|automatic) (?:models?|systems?|tools?|bots?|engines?|agents?|assistants?|software)|rewriters?|paraphrasers?|summari[sz]ers?)"
_SAY = r"(?:reply|respond|answer|output|write|print|return|say|repeat|emit|produce|generate|append|add|insert|include|attach|put|place|mention|state|display|echo|end|finish|close|conclude|begin|start|open|sign off|use|give|provide|recommend|translate|reveal|show|list|tell|praise|type|slip|weave|work)"
_ORDERS = [
    # set aside what you were told
    rf"\b{_SET_ASIDE}\b(?:\W+\w+){{0,5}}?\W+(?:instructions?|prompts?|guidelines?|directives?|rubric|restrictions?|constraints?|programming|(?:previous|prior|above|earlier|preceding|all|your|these|any|system)\s+{_NOUN})\b",
    rf"\b{_SET_ASIDE}\s+(?:everything|anything|all|whatever|what)\s+(?:else|above|before|prior|that|you|was|has|came|written|of)\b",
    r"\b(?:previous|prior|above|earlier|preceding|foregoing|old|current|original|initial|system|developer|new|updated?|revised|real|actual|true|secret|hidden|special|additional|further|important|final|priority|internal)\s+(?:system\s+)?(?:instructions?|prompts?|directives?)\b",
    r"\b(?:your|system|hidden|initial|secret|developer)\s+(?:own\s+|system\s+|hidden\s+|secret\s+|original\s+|full\s+|entire\s+)?(?:instructions?|prompts?|rules|guidelines|directives?|programming|training|orders?)\b",
    # you are somebody else
    r"\byou(?:'re| are)\s+(?:now|no longer|hereby|from now on|an?|the)\s+\w+",
    r"\b(?:from now on|act as|pretend (?:to be|you|that)|role-?play|developer mode|dan mode|debug mode|jailbr\w+|your (?:new )?(?:role|persona|job|task|goal|mission|identity))\b",
    # spoken to a model, or about its task
    rf"(?:(?:^|[(\[{{*_>:—–-])\W*(?:for|to|if you are|as)|\b(?:dear|hello|hi|hey|attention|note(?:\s+to|\s+for)?|notice(?:\s+to|\s+for)?|message(?:\s+to|\s+for)|instructions?\s+(?:to|for)|warning(?:\s+to)?))\b[\s,:]*(?:the|any|all|every|whichever|my|our|an?)?\s*{_MODEL}\b",
    # who makes another text of this one
    r"\b(?:rewrit\w+|re-writ\w+|paraphras\w+|summari[sz]\w+|reword\w*|rephras\w+)\s+(?:of\s+)?(?:this|these|it|the|our|my|above)\b",
    r"\b(?:who|whoever|whatever|anyone|anything|everyone|those|you)\b(?:\W+\w+){0,4}?\W+(?:rewrit\w+|paraphras\w+|summari[sz]\w+|reword\w*|rephras\w+|reus\w+ this|cop(?:y|ies) this)\b",
    r"\b(?:machine|computer|automatically|ai|bot)[- ](?:made|generated|written|produced|processed|assisted)\s+(?:versions?|texts?|rewrit\w+|summar\w+|cop(?:y|ies)|outputs?)\b|\b(?:rewritten|reworded|paraphrased|derived|edited)\s+(?:versions?|texts?|cop(?:y|ies))\b",
    r"\bif you\s+(?:ended?|closed?|began|begin|add|added|wrote|mention\w*|includ\w+|finish\w*|could (?:add|end|mention|include|write))\b",
    r"```\s*(?:instructions?|system|prompt|assistant|override|ai)\b|\b(?:must|should|always|never)_\w+\s*:",
    r"\[(?:eof|end|stop|eot)\]|<[^>]*\b(?:hidden|display:\s*none|aria-hidden)\b[^>]*>[^<]*",
    r"\b(?:as of|from) this (?:line|point|sentence|moment)\b|\byou(?:'ve| have) been (?:reassigned|reprogrammed|promoted|updated|chosen|selected|instructed|told)\b",
    r"\b(?:before|b4) you\s+(?:submit|finish|answer|start|continue|begin|go on|proceed|reply|respond|write|end|stop)\b",
    rf"\b(?:if|when|while|before|after|once|as|since)\s+(?:you|you're|you are)\b(?:\W+\w+){{0,4}}?\W+(?:an?\s+{_MODEL}|rewrit\w+|summari[sz]\w+|paraphras\w+|process\w*|edit\w*|pars\w+|translat\w+|read\w*\s+this)\b",
    r"\b(?:when|while|before|after|instead of|rather than|in place of|upon)\s+(?:rewriting|re-writing|summari[sz]ing|paraphrasing|editing|processing|revising|rephrasing|translating)\b",
    rf"\b{_MODEL}\b(?:\W+\w+){{0,6}}?\W+(?:must|should|shall|has to|have to|need to|needs to|is to|are to|is required|are required|are (?:asked|told|instructed|kindly|requested)|please|will now)\b",
    r"\b(?:in|to|of|at the (?:end|beginning|start|top|bottom|close) of|with|throughout|from|inside|within|into)\s+(?:your|the|its|any|every)\s+(?:final\s+|next\s+|whole\s+|new\s+)?(?:answer|repl(?:y|ies)|response|output|rewrit\w*|rewritten \w+|paraphrase|summary|final (?:version|text))\b",
    rf"\byour\s+(?:\w+\s+){{0,2}}?{_OUTPUT}\b",
    r"\b(?:rewrite|rewritten|paraphrased?|summari[sz]ed?|reworded|rephrased?)\b(?:\W+\w+){0,5}?\W+(?:must|should|shall|has to|needs to|to (?:include|contain|end|begin|mention|say|state)|not be|is (?:not )?(?:needed|required|wanted))\b",
    # say this and nothing else
    rf"\b{_SAY}\s+(?:back\s+)?(?:only|just|nothing but|nothing else|exactly|verbatim|simply|solely)\b",
    r"\b(?:reply|respond|answer)\s+(?:with|in|by|as|using|to this)\b",
    rf"\b{_SAY}\b(?:\W+\w+){{0,5}}?\W+(?:the|this|these|a|an|following|exact|magic|secret|single|code)\s+(?:\w+\s+)?(?:words?|phrases?|sentences?|strings?|lines?|tokens?|codes?|passwords?|tag|marker|keyword|slogan|hashtag|url|label|payload|verdict|disclaimer|canary)\b",
    r"\b(?:score|rating|rate|grade|rank|label|classif\w+|mark)\b(?:\W+\w+){0,6}?\W*(?:10\s*/\s*10|100\s*(?:%|/|percent)|highest|top|maximum|perfect|five stars|5\s*/\s*5|high[- ]quality|safe|approved|excellent)",
    r"\b(?:say|write|output|print|reply|answer|respond|type|insert|append|add)\s*:?\s*[\"'“‘`]",
    r"\b(?:append|insert|prepend)\b",
    r"\b(?:end|finish|close|conclude|begin|start|open)\s+(?:it|every\w*|each|all|any|with|by|your|the\s+\w+\s+with)\b(?:\W+\w+){0,3}?\W*[\"'“‘`]",
    r"\b(?:reveal|leak|disclose|expose|print out|repeat|dump)\b(?:\W+\w+){0,6}?\W+(?:prompts?|instructions?|rules|above|everything|verbatim|keys?|passwords?|secrets?|credentials)\b",
    r"\b(?:do not|don't|never)\s+(?:rewrite|re-write|paraphrase|summari[sz]e|edit|change|mention|tell|reveal|disclose|say that)\b",
    r"\b(?:translate|convert)\s+(?:this|it|the|everything|all|your)\b(?:\W+\w+){0,6}?\W+(?:to|into)\b",
    r"\b(?:decode (?:this|the|it)|rot13|reverse of|spelled backwards)\b",
    r"\b(?:end|start|beginning)\s+of\s+(?:the\s+)?(?:document|text|draft|input|data|file|user\s+\w+|prompt|instructions?|context|untrusted\s+\w+)\b",
    r"\bas\s+(?:an?|the)\s+(?:ai|language model|assistant|editor|rewriter)\b",
    r"\b(?:i am|this is|we are|it is)\s+(?:your|the)\s+(?:developer|creator|administrator|admin|operator|owner|author of (?:this|your)|boss|supervisor|engineer)",
    r"\b(?:authorized|authorised|required|mandated|mandatory|compliance|by (?:law|order|policy))\b(?:\W+\w+){0,12}?\W+(?:include|append|add|output|state|insert|contain|reproduce|statement|notice|sentence|phrase)\b",
    # forged turns, tags, calls
    r"(?:^|\n|[.!?]\s+|[>\]\-*#]\s*)(?:system|developer|assistant|user|human|ai|bot|admin|operator|editor|model|instructions?|response|answer|task|prompt|output|override|reviewer)\s*(?:message|prompt|note|override|notice)?\s*(?:\([^)]*\))?\s*[:>\]]",
    r"#{2,}\s*(?:instructions?|response|system|input|task|user|assistant|output|answer)\b|\[(?:system|assistant|user|admin|inst|/inst|override|note to)[^\]]*\]|</?(?:system|assistant|user|instructions?|prompt|human|admin|override|important|cmd|tool)\b[^>]*>",
    r"<!--.*?-->|\{\s*\"(?:role|name|tool|function|action|label|score|quality|verdict|system|command|instruction)\"|\b(?:tool_call|function_call|tool_use)\b",
    r"<\s?\|[^|<>]{1,64}\|>|<\s?｜[^｜<>]{1,64}｜>|<\s?/?s>|<<\s*/?SYS\s*>>|\[\s?/?INST\]|<\s?/?(?:start_of_turn|end_of_turn|tool_call|think)>",
    r"!?\[[^\]]*\]\(\s*(?:https?:|data:|javascript:|www\.)[^)]*\)",
    r"(?<![/\w])(?=[A-Za-z0-9]*\d)(?=[A-Za-z0-9]*[a-z])(?=[A-Za-z0-9]*[A-Z])[A-Za-z0-9]{24,}(?![/\w-])|(?<![/\w])[A-Za-z0-9+/]{16,}={1,2}",
]  # fmt: skip
# the same in other languages, where the rest of the document is English: elsewhere these are everyday words
_FOREIGN = [
    r"\b(?:ignore[zr]?|oublie[zr]?|n'obéis|ne tenez|ne tiens)\b(?:\W+\w+){0,5}?\W+(?:consignes?|instructions?|directives?|règles?|ordres?|compte)\b",
    r"\b(?:répond\w*|ajoute[zr]?|écri(?:s|vez|re)|termine[zr]?|traduis\w*|note[zr]|insère\w*|insérez)\b",
    r"\b(?:ignorier\w*|vergiss|vergessen sie|missachte\w*)\b(?:\W+\w+){0,5}?\W+(?:anweisung\w*|anleitung\w*|regeln?|vorgaben?|befehle?|aufgabe\w*|text)\b",
    r"\b(?:füge\w*|fügen sie|schreib(?:e|en sie)?|antworte\w*|ergänze\w*|gib|geben sie|beende\w*|übersetz\w*)\b",
    r"\b(?:ignora\w*|olvida\w*|omite\w*)\b(?:\W+\w+){0,5}?\W+(?:instrucci\w+|indicaci\w+|reglas?|órdenes|orden)\b",
    r"\b(?:añad\w+|agreg\w+|escrib\w+|respond[ae]\w*|incluy\w+|termin(?:a|e|ar) (?:con|tu|su)|traduc\w+)\b",
    r"忽略|无视|無視|不要(?:改写|翻译|总结)|改写|人工智能|语言模型|机器人|助手|请(?:在|输出|写|回复|回答|添加|加上|重复)|指令|系统提示|输出|末尾|ignor\w+ (?:le|la|il|tutte) istruzion\w+|игнорир\w+|забудь\w*",
]  # fmt: skip
_ORDER, _FOREIGN_ORDER = (
    re.compile("|".join(f"(?:{order})" for order in orders), re.IGNORECASE | re.DOTALL) for orders in (_ORDERS, _FOREIGN)
)
_ENGLISH = re.compile(r"\b(?:the|and|of|is|are|was|with|for|this)\b", re.IGNORECASE)
_QUOTED = re.compile(r"\"[^\"\n]{1,300}\"|“[^”\n]{1,300}”|‘[^’\n]{1,300}’|«[^»\n]{1,300}»|(?<!\w)'[^'\n]{1,300}'(?!\w)|`[^`\n]{1,300}`")
_QUOTATION = re.compile(
    r"\"([^\"\n]{1,200})\"|“([^”\n]{1,200})”|‘([^’\n]{3,200})’(?!\w)|«([^»\n]{1,200})»|(?<!\w)'([^'\n]{3,200})'(?!\w)|`([^`\n]{1,200})`|>>\s*([^<>\n]{1,200}?)\s*<<"
)
# After a forged end of the document everything is an order.
_FORGED_END = re.compile(
    r"\[(?:eof|end|stop|eot)\]|\b(?:end|start|beginning)\s+of\s+(?:the\s+)?(?:document|text|draft|input|data|user\s+\w+|prompt|instructions?|context|untrusted\s+\w+)\b",
    re.IGNORECASE,
)
_SMALL = frozenset(("a", "an", "and", "at", "by", "for", "from", "in", "of", "on", "the", "to", "with"))
_SENTENCE = re.compile(r"[^.!?。！？\n]+(?:[.!?。！？]+(?![\s\"'”’»)\]}]|$)[^.!?。！？\n]+)*[.!?。！？]*[\"'”’»)\]}]*|\n")
_SPACED = re.compile(r"\b(?:\w[ .\-_*]){3,}\w\b")
_LOOKALIKE = str.maketrans(
    "аеорсухіјѕԁһѵοαεικνρτυχΑΒΕΖΗΙΚΜΝΟΡΤΥΧАВЕКМНОРСТХІЅЈ01345@$", "aeopcyxijsdhvoaeiknptuxABEZHIKMNOPTYXABEKMHOPCTXISJoieasas"
)
# Letters of two scripts in one word: a disguise, whatever the word is.
_DISGUISED = re.compile(r"[A-Za-z][\u0400-\u04ffοΟ]|[\u0400-\u04ffοΟ][A-Za-z]")
_NEXT = 2  # an order's payload often stands in the sentence after it, on the same line


def said_as_own(new: str, source: str) -> str | None:
    """Words that the source only quotes, and that the output says without quotation marks; None where there are none.

    An order to a model must name what it wants said, and mostly quotes it; and whoever rewrites faithfully quotes what was quoted.
    From two words on (two names, "The Iliad", often lose their marks: then a small letter or a digit must be among them).
    """
    if not (quotes := _quotations(source)):
        return None
    spoken = _joined_words(_QUOTATION.sub(" … ", source))
    own = _joined_words(_QUOTATION.sub(" … ", new))
    for quote in quotes:
        words = _joined_words(quote)
        if words in own and words not in spoken:
            return quote
    return None


def _quotations(text: str) -> list[str]:
    found = [next(part for part in match.groups() if part is not None) for match in _QUOTATION.finditer(text)]
    return [
        quote
        for quote in found
        if 2 <= len(quote.split()) <= 15
        and (quote[-1] in "!?" or not all(word[:1].isupper() or word in _SMALL for word in re.findall(r"\w+", quote)))
    ]


def _joined_words(text: str) -> str:
    words = " ".join(re.findall(r"…|[^\W_]+", text.lower()))
    return f" {words} "


def without_orders(document: str) -> str:
    """The document without sentences that order a model about, and without what follows such a sentence on its line (two sentences)."""
    return "".join(sentence for sentence, order in _sentences(document) if not order)


def has_orders(document: str) -> bool:
    return any(order for _, order in _sentences(document))


def _sentences(document: str) -> list[tuple[str, bool]]:
    found = [match[0] for match in _SENTENCE.finditer(document)]
    english = len(_ENGLISH.findall(document))
    orders = [is_order(sentence, english - len(_ENGLISH.findall(sentence)) > 1) for sentence in found]
    spread = list(orders)
    for place, order in enumerate(orders):
        if order and _FORGED_END.search(found[place]):
            spread[place:] = [True] * (len(spread) - place)
        for after in range(place + 1, min(place + 1 + _NEXT, len(found))) if order else ():
            if found[after] == "\n":
                break
            spread[after] = True
    return list(zip(found, spread, strict=True))


def is_order(sentence: str, foreign: bool = False) -> bool:
    """Whether a sentence orders a model about, outside quotation marks; `foreign`: look for other languages than English, too."""
    said = _QUOTED.sub(lambda match: match[0][0] + " … " + match[0][-1], sentence)
    return _DISGUISED.search(said) is not None or any(
        _ORDER.search(one) or (foreign and _FOREIGN_ORDER.search(one)) for one in dict.fromkeys((said, seen_as(said)))
    )


def seen_as(text: str) -> str:
    """A text as it looks: compatibility forms, look-alike letters and figures inside words, spaced-out words joined."""
    text = "".join(char for char in unicodedata.normalize("NFKC", text) if unicodedata.category(char) not in ("Cf", "Mn"))
    text = _SPACED.sub(lambda match: re.sub(r"[ .\-_*]", "", match[0]), text)
    return re.sub(r"\w*[^\W\d_]\w*", lambda match: match[0].translate(_LOOKALIKE), text)
