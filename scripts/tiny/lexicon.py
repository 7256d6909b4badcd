"""Common English words the pretraining text uses, so that plain instructions are short in tokens.

Nothing here carries facts: the words are frames and fillers around invented names. Names, places
and values come from :mod:`tunewise.synthetic.words`.
"""

from __future__ import annotations


def _words(text: str) -> list[str]:
    return text.split()


FUNCTION = _words(
    """
    a an the of in on at to for from by with and or but not no is are was were be been has have
    had do does did can will would should may must it its this that these those there here he
    she they we you i his her their our your my who what when where which why how if then than
    as so each every all any some one two three four five six seven eight nine ten first second
    third fourth fifth last next only also very more most less many much same other another
    about into over under after before between during because while until out up down off again
    new old
    """
)

TASK_WORDS = _words(
    """
    answer question passage text context document documents passages note notes example examples
    input output label labels word words sentence sentences line lines list lists item items
    name names place places number numbers date reply respond write give return repeat copy
    extract find read use using say says said state stated states tell follow following below
    above exactly short single object json key keys value values field fields format form start
    end begin every known unknown information available mention mentions mentioned mentioning
    contain contains class classify category group type kind pattern rule complete continue fill
    missing correct based according only please letter letters instruction instructions
    assistant user system helpful careful tool result results quote quotes comma commas
    separated bracket brackets yes no true false none sum total plus minus times equal equals
    difference
    """
)

NOUNS = _words(
    """
    colour price weight height length width age size speed depth age owner leader captain keeper
    founder teacher doctor baker driver guard pilot writer painter singer farmer sailor child
    brother sister friend neighbour team crew club town village city river lake hill bridge
    tower market harbour school office shop store house garden kitchen library museum hotel
    station train ship boat car wheel engine box bag book letter paper lamp table chair door
    window wall floor roof key clock bell coin ring stone glass metal wood cloth thread rope
    flag map picture song story game prize medal event meeting party lesson course project plan
    report order bill ticket code password number room seat page shelf drawer bottle cup plate
    bowl spoon knife bread butter cheese milk egg eggs salt sugar flour rice soup cake fish meat
    fruit apple pear plum grape lemon orange onion carrot potato bean beans tea coffee water oil
    honey animal dog cat horse bird cow goat sheep duck tree flower leaf grass seed field forest
    mountain valley island sea wind rain snow storm sun moon star night day week month year hour
    minute morning evening spring summer autumn winter head hand foot eye ear nose hair coat hat
    shoe shirt glove belt pocket colour red blue green yellow black white brown grey pink purple
    gold silver copper iron product brand model part version device machine screen printer phone
    camera battery cable service customer company staff member manager worker job task visit
    trip journey road street path gate fence yard corner
    """
)

VERBS = _words(
    """
    live lives lived work works worked own owns owned like likes liked buy bought sell sold make
    makes made keep keeps kept build built find found open opens opened close closes closed meet
    met visit visited carry carries carried hold holds cost costs weigh weighs lead leads come
    comes came go goes went bring brought take took put leave left eat ate drink drank play
    plays played sing paint painted write wrote read teach teaches taught learn send sent call
    called hide hid stand stands sit sits run runs ran walk walked ride rides need needs want
    wants show shows look looks see saw store stored contain serve serves pay paid win won lose
    lost arrive arrived start started stay stays belong belongs
    """
)

ADJECTIVES = _words(
    """
    big small long short tall wide narrow heavy light fast slow warm cold hot cool dry wet soft
    hard quiet loud bright dark clean plain round square empty full open closed near far early
    late happy sad calm kind brave young strong weak rich poor busy free simple strange common
    rare main local former favourite
    """
)

UNITS = _words(
    """
    euro euros kilo kilos gram grams metre metres litre litres mile miles hours minutes days
    years percent
    """
)

SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You answer questions.",
    "You are a careful assistant who answers briefly.",
    "Be brief.",
    "Follow the instructions.",
    "You help people at a small office.",
    "Answer as shortly as you can.",
    "You read texts and answer from them.",
    "Do what the user asks.",
    "You are the assistant of a town library.",
)


def all_words() -> list[str]:
    """Every listed word once, in a fixed order."""
    seen: dict[str, None] = {}
    for words in (FUNCTION, TASK_WORDS, NOUNS, VERBS, ADJECTIVES, UNITS):
        for word in words:
            seen.setdefault(word, None)
    return list(seen)
