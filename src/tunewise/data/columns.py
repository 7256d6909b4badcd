"""Columns that are called otherwise: a map in one line, and a guess at what the map should be."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tunewise.data.messages import is_message
from tunewise.errors import UsageError
from tunewise.study.schema import Columns

Row = Mapping[str, Any]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_OURS = tuple(Columns.model_fields)
_COMMA = re.compile(rf",(?=\s*(?:{'|'.join(_OURS)})\s*=)")
_INPUTS = _words(
    "input question prompt query instruction user human request message email mail ticket review "
    "comment utterance sentence text document article body content description subject source "
    "frage eingabe anfrage nachricht kommentar bewertung satz artikel beschreibung betreff "
    "anliegen "
    "pregunta entrada consulta mensaje texto comentario descripcion descripción solicitud "
    "entrée entree requête requete texte commentaire demande "
    "domanda richiesta messaggio testo commento pergunta mensagem comentário "
    "vraag bericht tekst opmerking pytanie wiadomość fråga spørgsmål kysymys вопрос текст "
    "問題 質問 问题 質問文 文本 질문"
)
_OUTPUTS = _words(
    "output answer response completion reply label target class category intent sentiment topic "
    "tag assistant expected gold solution result summary translation department priority "
    "antwort ausgabe lösung loesung ergebnis klasse kategorie bezeichnung zusammenfassung "
    "übersetzung abteilung thema stimmung "
    "respuesta salida etiqueta clase categoría categoria resultado resumen traducción "
    "réponse reponse sortie étiquette etiquette classe catégorie categorie résultat résumé "
    "risposta uscita etichetta resposta saída saida rótulo "
    "antwoord odpowiedź etykieta kategoria svar vastaus ответ метка класс категория "
    "回答 答案 答え ラベル 标签 답변 정답"
)
_WORDS = re.compile(r"[^\W\d_]+")
_CAMEL = re.compile(r"(?<=[^\W\d_A-Z])(?=[A-Z])")
_LOOKED_AT = 50
_FEW_LABELS = 0.5


def parse_columns(text: str) -> Columns:
    """``input=Frage,output=Antwort`` as a map of columns.

    Commas and equal signs may stand in the file's own names; only a comma before one of our names
    and ``=`` parts two columns.

    Raises:
        UsageError: it is not written so, or names a column that we do not know.
    """
    found: dict[str, str] = {}
    for piece in _COMMA.split(text):
        ours, _, theirs = piece.partition("=")
        found[ours.strip()] = theirs
    return columns_from(found)


def columns_from(given: Mapping[str, str]) -> Columns:
    """A map of columns from plain names.

    Raises:
        UsageError: it names a column that we do not know, or gives no name for one.
    """
    wrong = next((k for k, v in given.items() if k not in _OURS or not v.strip()), None)
    if wrong is not None:
        raise UsageError(
            f"{wrong!r} is none of our names of columns"
            if wrong not in _OURS
            else f"{wrong!r} has no column",
            where="--columns",
            hint="For instance: --columns input=Frage,output=Antwort\n"
            f"Our names are {', '.join(_OURS)}.",
        )
    return Columns(**given)


def written(columns: Columns) -> str:
    """A map of columns as :func:`parse_columns` reads it."""
    return ",".join(f"{k}={v}" for k, v in columns.model_dump(exclude_none=True).items())


def likely_columns(rows: Sequence[Row]) -> Columns | None:
    """A guess at which columns hold question and answer, by their names and what they hold.

    None where there is nothing to go by.
    """
    rows = rows[:_LOOKED_AT]
    cells = {name: [row[name] for row in rows if row.get(name)] for name in _names(rows)}
    cells = {name: values for name, values in cells.items() if values}
    for name, values in cells.items():
        if all(isinstance(v, list) and v and all(map(is_message, v)) for v in values):
            return Columns(messages=name)
    texts = {n: [v for v in vs if isinstance(v, str)] for n, vs in cells.items()}
    texts = {n: vs for n, vs in texts.items() if len(vs) > len(cells[n]) / 2}
    if len(cells) < 2:
        return None
    asked, wanted = _named(list(texts), _INPUTS), _named(list(cells), _OUTPUTS)
    if asked == wanted:
        asked = None
    left = [n for n in texts if n not in (asked, wanted) and not _is_id(n, texts[n])]
    if asked is None and left:  # the longest text is what is asked about
        asked = max(left, key=lambda n: sum(map(len, texts[n])) / len(texts[n]))
        left.remove(asked)
    if wanted is None and left:
        few = [n for n in left if len(set(texts[n])) <= _FEW_LABELS * len(texts[n])]
        wanted = few[-1] if few else left[-1]
    if asked is None or wanted is None:
        return None
    return Columns(input=asked, output=wanted)


def _names(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(str(name) for row in rows for name in row))


def _named(names: Sequence[str], words: Sequence[str]) -> str | None:
    """The column whose name says most clearly what it is: itself, one of its words, its end."""
    known = {name: [w.casefold() for w in _WORDS.findall(_CAMEL.sub(" ", name))] for name in names}
    fits: tuple[Callable[[list[str], str], bool], ...] = (
        lambda parts, word: parts == [word],
        lambda parts, word: word in parts,
        # Compounds of German and Dutch: Kundenfrage, Musterantwort.
        lambda parts, word: len(word) > 4 and any(p.endswith(word) for p in parts),
    )
    for fit in fits:
        for word in words:
            for name in names:
                if fit(known[name], word):
                    return name
    return None


def _is_id(name: str, values: Sequence[str]) -> bool:
    """Short, without spaces, each once: a key and no text."""
    return (
        len(set(values)) == len(values) > 1
        and max(map(len, values)) <= 40
        and not any(" " in v.strip() for v in values)
    )
