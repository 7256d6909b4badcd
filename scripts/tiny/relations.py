"""Sentence frames of invented facts: fixed relations, and frames for any attribute."""

from __future__ import annotations

Relation = tuple[str, str, str, tuple[str, ...], tuple[str, ...]]

# attribute, entity kind, value kind, statements, questions ({e} entity, {v} value)
RELATIONS: tuple[Relation, ...] = (
    (
        "home",
        "name",
        "place",
        ("{e} lives in {v}.", "{e} has a house in {v}.", "The home of {e} is in {v}."),
        ("Where does {e} live?", "Where is the home of {e}?", "In which town does {e} live?"),
    ),
    (
        "work",
        "name",
        "place",
        ("{e} works in {v}.", "{e} has a job in {v}.", "{e} goes to work in {v}."),
        ("Where does {e} work?", "In which town does {e} work?", "Where is the job of {e}?"),
    ),
    (
        "likes",
        "name",
        "noun",
        ("{e} likes the {v}.", "What {e} likes most is the {v}."),
        ("What does {e} like?", "What does {e} like most?"),
    ),
    (
        "age",
        "name",
        "number",
        ("{e} is {v} years old.", "The age of {e} is {v}."),
        ("How old is {e}?", "What is the age of {e}?", "Give the age of {e}."),
    ),
    (
        "price",
        "thing",
        "amount",
        ("The {e} costs {v}.", "The price of the {e} is {v}.", "You pay {v} for the {e}."),
        ("How much does the {e} cost?", "What is the price of the {e}?", "How much is the {e}?"),
    ),
    (
        "keeper",
        "thing",
        "name",
        ("The {e} is kept by {v}.", "{v} keeps the {e}.", "{v} looks after the {e}."),
        ("Who keeps the {e}?", "Who looks after the {e}?", "By whom is the {e} kept?"),
    ),
    (
        "day",
        "place",
        "date",
        (
            "The market in {e} is on {v}.",
            "On {v} there is a market in {e}.",
            "{e} has its market on {v}.",
        ),
        ("When is the market in {e}?", "On which day is the market in {e}?"),
    ),
    (
        "leader",
        "place",
        "full",
        ("{v} leads {e}.", "The leader of {e} is {v}.", "In {e} the leader is {v}."),
        ("Who leads {e}?", "Who is the leader of {e}?", "Name the leader of {e}."),
    ),
    (
        "code",
        "thing",
        "code",
        ("The code of the {e} is {v}.", "Use code {v} for the {e}.", "The {e} has the code {v}."),
        (
            "What is the code of the {e}?",
            "Which code does the {e} have?",
            "Give the code for the {e}.",
        ),
    ),
    (
        "owner",
        "odd",
        "name",
        ("{v} owns the {e}.", "The {e} belongs to {v}.", "The owner of the {e} is {v}."),
        ("Who owns the {e}?", "To whom does the {e} belong?", "Who is the owner of the {e}?"),
    ),
    (
        "found",
        "odd",
        "place",
        ("The {e} was found in {v}.", "In {v} they found the {e}.", "The {e} comes from {v}."),
        ("Where was the {e} found?", "Where does the {e} come from?"),
    ),
    (
        "bought",
        "name",
        "odd",
        ("{e} bought the {v}.", "The {v} was bought by {e}."),
        ("What did {e} buy?", "Which thing did {e} buy?"),
    ),
    (
        "met",
        "name",
        "full",
        ("{e} met {v} at the station.", "At the station {e} met {v}."),
        ("Whom did {e} meet?", "Who was met by {e} at the station?"),
    ),
    (
        "weight",
        "thing",
        "amount",
        ("The {e} weighs {v}.", "The weight of the {e} is {v}."),
        ("How much does the {e} weigh?", "What is the weight of the {e}?"),
    ),
    (
        "opened",
        "place",
        "date",
        ("The bridge in {e} opened on {v}.", "On {v} the bridge in {e} was opened."),
        ("When did the bridge in {e} open?", "On what date was the bridge in {e} opened?"),
    ),
    (
        "stored",
        "thing",
        "phrase",
        (
            "The {e} is stored in the {v}.",
            "In the {v} you find the {e}.",
            "They put the {e} in the {v}.",
        ),
        ("Where is the {e} stored?", "Where do you find the {e}?", "Where did they put the {e}?"),
    ),
    (
        "seats",
        "place",
        "number",
        ("The hall of {e} has {v} seats.", "There are {v} seats in the hall of {e}."),
        ("How many seats does the hall of {e} have?", "How many seats are in the hall of {e}?"),
    ),
    (
        "wrote",
        "name",
        "thing",
        ("{e} wrote a book called {v}.", "The book {v} was written by {e}."),
        ("Which book did {e} write?", "What is the book of {e} called?"),
    ),
    (
        "teaches",
        "name",
        "thing",
        ("{e} teaches {v}.", "At school {e} teaches {v}.", "The lessons in {v} are given by {e}."),
        ("What does {e} teach?", "Which lessons does {e} give?"),
    ),
    (
        "arrived",
        "full",
        "date",
        ("{e} arrived on {v}.", "On {v} came {e}."),
        ("When did {e} arrive?", "On which date did {e} come?"),
    ),
)
HELD_OUT_RELATIONS: tuple[Relation, ...] = (
    (
        "captain",
        "thing",
        "name",
        ("The captain of the ship {e} is {v}.", "{v} is captain on the {e}."),
        ("Who is the captain of the {e}?", "Which captain does the {e} have?"),
    ),
    (
        "garden",
        "name",
        "noun",
        ("In the garden of {e} stands a {v}.", "{e} has a {v} in the garden."),
        ("What stands in the garden of {e}?", "What does {e} have in the garden?"),
    ),
    (
        "depth",
        "place",
        "amount",
        ("The lake near {e} is {v} deep.", "Near {e} there is a lake of {v}."),
        ("How deep is the lake near {e}?",),
    ),
    (
        "medal",
        "full",
        "place",
        ("{e} won a medal in {v}.", "The medal of {e} was won in {v}."),
        ("Where did {e} win a medal?", "In which town was the medal of {e} won?"),
    ),
)
ENTITY_KINDS = ("name", "place", "thing", "full", "odd")
VALUE_KINDS = (
    "name",
    "place",
    "thing",
    "noun",
    "amount",
    "number",
    "date",
    "code",
    "phrase",
    "odd",
    "full",
)
GENERIC_STATEMENTS = (
    "The {a} of {e} is {v}.",
    "The {a} for {e} is {v}.",
    "{e} has the {a} {v}.",
    "{v} is the {a} of {e}.",
    "{e} uses {v} as its {a}.",
    "For {e}, the {a} is {v}.",
    "As {a}, {e} has {v}.",
    "{e}: the {a} is {v}.",
    "In the case of {e} the {a} is called {v}.",
    "Note that {v} is the {a} given to {e}.",
)
GENERIC_QUESTIONS = (
    "What is the {a} of {e}?",
    "What is the {a} for {e}?",
    "Which {a} does {e} have?",
    "Give the {a} of {e}.",
    "{e}: what is the {a}?",
    "Tell me the {a} of {e}.",
    "Find the {a} of {e}.",
    "Can you say which {a} {e} has?",
)


_VERBS = """
own like buy sell make keep build find open close meet visit hold lead bring take leave eat drink
play sing paint write read call hide need want show see store serve pay win lose start send run ride
"""
VERB_PAIRS = (
    *((verb, verb + "s") for verb in _VERBS.split()),
    ("carry", "carries"),
    ("teach", "teaches"),
    ("watch", "watches"),
    ("fetch", "fetches"),
)
