"""VQA accuracy step by step, like the official evaluation: the reference that the fast implementation is compared with.

It is kept simple and uses nothing of vlbench, so that it can be compared with the published description.
Source: Antol et al. 2015 and Goyal et al. 2017; a reimplementation of the official Python evaluation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Record = Mapping[str, Any]

SPELT_FROM_MISSPELT = """
'ow's'at <- ow's'at 'ows'at 'ow'sat; 'twas <- twas; ain't <- aint; aren't <- arent; can't <- cant; could've <-
couldve; couldn't <- couldnt; couldn't've <- couldn'tve couldnt've; didn't <- didnt; doesn't <- doesnt; don't <-
dont; hadn't <- hadnt; hadn't've <- hadnt've hadn'tve; hasn't <- hasnt; haven't <- havent; he'd <- hed; he'd've <-
hed've he'dve; he's <- hes; how'd <- howd; how'll <- howll; how's <- hows; I'd've <- Id've I'dve; I'm <- Im; I've <-
Ive; isn't <- isnt; it'd <- itd; it'd've <- itd've it'dve; it'll <- itll; let's <- let's; ma'am <- maam; might've <-
mightve; mightn't <- mightnt; mightn't've <- mightnt've mightn'tve; must've <- mustve; mustn't <- mustnt; needn't <-
neednt; not've <- notve; o'clock <- oclock; oughtn't <- oughtnt; shan't <- shant; she'd've <- shed've she'dve; she's
<- she's; should've <- shouldve; shouldn't <- shouldnt; shouldn't've <- shouldnt've shouldn'tve; somebodyd <-
somebody'd; somebody'd've <- somebodyd've somebody'dve; somebody'll <- somebodyll; somebody's <- somebodys; someone'd
<- someoned; someone'd've <- someoned've someone'dve; someone'll <- someonell; someone's <- someones; something'd <-
somethingd; something'd've <- somethingd've something'dve; something'll <- somethingll; that's <- thats; there'd <-
thered; there'd've <- thered've there'dve; there're <- therere; there's <- theres; they'd <- theyd; they'd've <-
theyd've they'dve; they'll <- theyll; they're <- theyre; they've <- theyve; wasn't <- wasnt; we'd've <- wed've
we'dve; we've <- weve; weren't <- werent; what'll <- whatll; what're <- whatre; what's <- whats; what've <- whatve;
when's <- whens; where'd <- whered; where's <- wheres; where've <- whereve; who'd <- whod; who'd've <- whod've
who'dve; who'll <- wholl; who's <- whos; who've <- whove; why'll <- whyll; why're <- whyre; why's <- whys; won't <-
wont; would've <- wouldve; wouldn't <- wouldnt; wouldn't've <- wouldnt've wouldn'tve; y'all <- yall; y'all'd've <-
yall'd've y'alld've y'all'dve; y'all'll <- yall'll y'allll; you'd <- youd; you'd've <- youd've you'dve; you'll <-
youll; you're <- youre; you've <- youve
"""
CONTRACTIONS = {
    misspelt: spelt.strip()
    for spelt, _, all_misspelt in (entry.partition("<-") for entry in SPELT_FROM_MISSPELT.split(";"))
    for misspelt in all_misspelt.split()
}

NUMBER_WORDS = {
    "none": "0",
    "zero": "0",
    "one": "1",
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
    "seven": "7",
    "eight": "8",
    "nine": "9",
    "ten": "10",
}
ARTICLES = ["a", "an", "the"]
PUNCTUATION = [";", "/", "[", "]", '"', "{", "}", "(", ")", "=", "+", "\\", "_", "-", ">", "<", "@", "`", ",", "?", "!"]
COMMA = re.compile(r"(\d)(,)(\d)", re.ASCII)
PERIOD = re.compile(r"(?!<=\d)(\.)(?!\d)", re.ASCII)


class OfficialScores(NamedTuple):
    """Means in percent, not rounded. by_question: question id -> score in [0, 1]."""

    overall: float
    by_question: dict[int, float]
    by_answer_type: dict[str, float]
    by_question_type: dict[str, float]


def evaluate(annotations: Sequence[Record], results: Sequence[Record]) -> OfficialScores:
    """Score official results against official annotations; every annotated question must be answered."""
    given = {result["question_id"]: result["answer"] for result in results}
    by_question: dict[int, float] = {}
    answer_types: dict[str, list[float]] = {}
    question_types: dict[str, list[float]] = {}
    for annotation in annotations:
        score = question_score(annotation["answers"], given[annotation["question_id"]])
        by_question[annotation["question_id"]] = score
        answer_types.setdefault(annotation["answer_type"], []).append(score)
        question_types.setdefault(annotation["question_type"], []).append(score)
    return OfficialScores(
        percent(list(by_question.values())),
        by_question,
        {name: percent(scores) for name, scores in answer_types.items()},
        {name: percent(scores) for name, scores in question_types.items()},
    )


def percent(scores: Sequence[float]) -> float:
    """The mean, times 100."""
    return 100 * sum(scores) / len(scores)


def question_score(answers: Sequence[Record], prediction: str) -> float:
    """The score in [0, 1] of a prediction, given the records of the ten annotators' answers."""
    records = [{**record, "answer": trim(record["answer"])} for record in answers]
    prediction = trim(prediction)
    if len({record["answer"] for record in records}) > 1:
        for record in records:
            record["answer"] = words(punctuation(record["answer"]))
        prediction = words(punctuation(prediction))
    scores = []
    for left_out in records:
        others = [record for record in records if record != left_out]
        matching = [record for record in others if record["answer"] == prediction]
        scores.append(min(1.0, len(matching) / 3))
    return sum(scores) / len(scores)


def trim(text: str) -> str:
    """Replace line feeds and tabs by spaces, and strip both ends."""
    text = text.replace("\n", " ")
    text = text.replace("\t", " ")
    return text.strip()


def punctuation(text: str) -> str:
    """Remove signs or replace each by a space; then remove the first 32 periods that no digit follows."""
    out = text
    for sign in PUNCTUATION:
        if sign + " " in text or " " + sign in text or COMMA.search(text) is not None:
            out = out.replace(sign, "")
        else:
            out = out.replace(sign, " ")
    return PERIOD.sub("", out, count=32)


def words(text: str) -> str:
    """Lower case, number words as digits, no articles, contractions with apostrophes."""
    kept = []
    for word in text.lower().split():
        word = NUMBER_WORDS.get(word, word)
        if word not in ARTICLES:
            kept.append(word)
    for place, word in enumerate(kept):
        if word in CONTRACTIONS:
            kept[place] = CONTRACTIONS[word]
    return " ".join(kept)
