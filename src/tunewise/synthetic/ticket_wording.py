"""What customers of an invented shop write, and what the shop notes of it.

Every sentence was written for this project. ``tickets.py`` puts them together.
"""

from __future__ import annotations

from dataclasses import dataclass

ITEMS = (
    "kettle", "toaster", "bread knife", "desk lamp", "garden hose", "rain barrel", "wool blanket",
    "oak stool", "wall clock", "coffee grinder", "picnic basket", "bird feeder", "floor lamp",
    "cast iron pan", "shower rail", "door mat", "hand blender", "sewing kit", "bookshelf",
    "salad bowl", "camping stove", "watering can", "ironing board", "mirror", "tool box",
    "egg cooker", "step ladder", "curtain rod", "waffle maker", "pillow",
)  # fmt: skip
PARTS = ("lid", "handle", "screw set", "cable", "manual", "cover", "spare bulb", "clip")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
AGO = ("a week ago", "on the 3rd", "last week", "before the weekend", "ten days ago", "by {day}")


@dataclass(frozen=True)
class Issue:
    """One thing that customers write about.

    Attributes:
        category: where it belongs.
        summary: the shop's own line for it.
        said: ways of saying it.
    """

    category: str
    summary: str
    said: tuple[str, ...]


ISSUES = (
    Issue("delivery", "{item} has not arrived", (
        "I am still waiting for the {item}.",
        "The {item} should have been here {ago} and there is no sign of it.",
        "Where is my {item}?",
        "Nobody has brought the {item} yet.",
        "The tracking page has not moved since {day}, and no {item} here.",
        "You told me {day}. It is well past that and I have no {item}.",
        "{item} never showed up.",
    )),
    Issue("delivery", "{item} to another address", (
        "Please send the {item} to my sister in {place} instead.",
        "Can the {item} go to {place}? I gave you my old flat.",
        "I typed in the wrong street when I bought the {item}, it has to go to {place}.",
        "We moved to {place} last week, so the {item} must not go to the old house.",
        "New place for the {item}: {place}, not where I lived before.",
    )),
    Issue("delivery", "{other} sent instead of {item}", (
        "I opened the box and found a {other} where the {item} should be.",
        "I asked for a {item}. What came is a {other}.",
        "Someone packed a {other}, not my {item}.",
        "Why did you send me a {other}? I paid for a {item}.",
        "Got {other}, wanted {item}.",
    )),
    Issue("damage", "{item} arrived broken", (
        "The {item} was in pieces when I unpacked it.",
        "There is a crack right through the {item}, straight out of the box.",
        "I unwrapped the {item} and one side is smashed.",
        "My new {item} came bent and with a corner gone.",
        "{item} broken on arrival.",
        "The courier must have dropped it: the {item} is split from top to bottom.",
    )),
    Issue("damage", "{part} of {item} missing", (
        "The {item} came without the {part}.",
        "I turned the box upside down, there is no {part} for the {item}.",
        "Everything of the {item} is there but the {part}.",
        "How am I to use the {item} if the {part} is not in the parcel?",
        "No {part} with the {item}.",
    )),
    Issue("damage", "{item} stopped working", (
        "After two weeks the {item} does nothing any more.",
        "The {item} was fine at first and gave up on {day}.",
        "Since {day} my {item} is dead.",
        "It worked for a month, now the {item} just sits there.",
        "The {item} packed up yesterday, I only used it four times.",
    )),
    Issue("billing", "charged twice for {item}", (
        "The money for the {item} went off my account two times.",
        "I see two payments for one {item}.",
        "You took {price} for the {item}, and then {price} once more.",
        "My card shows the {item} double.",
        "One {item}, paid for twice. How?",
    )),
    Issue("billing", "invoice for {item} wanted", (
        "My boss needs a proper bill for the {item}.",
        "I cannot find any invoice for the {item} in my mail.",
        "For my taxes I need it in writing what the {item} cost.",
        "Please send me the receipt for the {item}, with the VAT on it.",
    )),
    Issue("billing", "refund for {item} not received", (
        "I sent the {item} back {ago} and have not seen my {price} again.",
        "You have had the {item} back for ages. And my money?",
        "When do I get the {price} for the {item} that I returned?",
        "Still nothing on my account for the {item}, which went back {ago}.",
    )),
    Issue("return", "wants to return {item}", (
        "I do not like the {item} after all and would send it back.",
        "How do I give the {item} back?",
        "The {item} is not for us. What do I do to return it?",
        "We were given a {item} by an aunt, so yours can go back.",
        "The {item} goes back to you, tell me how.",
    )),
    Issue("return", "wants {item} in another size", (
        "The {item} is too small, I would like the next size.",
        "Could I swap the {item} for a bigger one?",
        "I measured badly: the {item} does not fit. Do you change it for the larger one?",
        "Right {item}, wrong size. Exchange?",
    )),
    Issue("return", "wants to cancel {item}", (
        "Please do not send the {item}, I have changed my mind.",
        "Stop the {item}, we found one in the cellar.",
        "I pressed the button by mistake and do not want a {item}.",
        "Can I still call off the {item}?",
    )),
    Issue("account", "cannot log in", (
        "The page says that my password is wrong, which it is not.",
        "I am locked out.",
        "No way into my account since {day}.",
        "It will not let me sign in any more.",
        "The code that you text me for logging in never comes.",
    )),
    Issue("account", "wants account deleted", (
        "Take me out of your system, all of it.",
        "I would like everything that you store about me to be removed.",
        "Please close my account for good.",
        "I am not coming back, so delete my data.",
    )),
    Issue("account", "wants no more newsletters", (
        "I clicked unsubscribe three times and your offers still come.",
        "No more advertising by mail, please.",
        "How do I get off your mailing list?",
        "Every day a newsletter. I never asked for it.",
    )),
    Issue("question", "asks when {item} is back", (
        "When will you have the {item} again?",
        "The {item} is sold out. Does it come back?",
        "Any idea whether the {item} will be on sale again this year?",
        "Can I be told once there are {item}s again?",
    )),
    Issue("question", "asks for size of {item}", (
        "How wide is the {item}?",
        "Would the {item} go into a niche of 40 cm?",
        "I cannot find the measurements of the {item}.",
        "What are height and depth of the {item}, please?",
    )),
    Issue("question", "asks how to clean {item}", (
        "Can the {item} go into the dishwasher?",
        "What do I clean the {item} with?",
        "My {item} has stains. Soap or vinegar?",
        "How does one get grease off the {item}?",
    )),
)  # fmt: skip

ASIDES = {
    "delivery": (
        "The delivery itself was quick, I must say.",
        "Your driver was lovely, by the way.",
        "The parcel before that came a day late, which I did not mind.",
    ),
    "damage": (
        "The box was dented, but what was in it is fine.",
        "One leg of the chair from you is a little loose, I can live with that.",
        "Years ago a cup of yours broke and you were very fair about it.",
    ),
    "billing": (
        "Paying was easy this time.",
        "The invoice came at once, so that is settled.",
        "I had a refund from you in spring, all fine there.",
    ),
    "return": (
        "I know that I could just send it back, but I would rather not.",
        "Returning things has always been simple with you.",
        "My husband says to cancel the lot, I say not yet.",
    ),
    "account": (
        "Logging in took me three tries, but never mind that.",
        "I have read your newsletter for years.",
        "My account is still under my maiden name, leave it so.",
    ),
    "question": (
        "I did read the page about cleaning and sizes.",
        "I wondered about the colour, but my son has looked it up.",
        "Whether you ever make it in green is for another day.",
    ),
}
"""Sentences on other matters, of which nothing is wanted."""

HIGH = (
    "My daughter marries on Saturday and today is Thursday.",
    "We open the café tomorrow morning.",
    "My flight goes tonight.",
    "Without it there is no warm milk for the baby.",
    "The rent goes off the same account at noon and will bounce.",
    "The guests ring the bell in three hours.",
    "Water is running down the wall while I write this.",
    "The builders stand here and cannot go on.",
    "The tax office wants it by the end of today.",
    "It gives off sparks and I have children here.",
    "I leave for the hospital tomorrow at eight.",
    "By tonight it is too late.",
)
LOW = (
    "There is no hurry at all.",
    "I am away until {month} anyway.",
    "Answer whenever you get round to it.",
    "It is only for next year's garden.",
    "This can wait, you surely have more pressing mail.",
    "Any time this season will do.",
    "I do not need it before {month}.",
    "Take your time.",
    "Put it at the bottom of your pile.",
    "I only ask because I was tidying up my mail.",
)
NEUTRAL_TIMES = (
    "I bought it on {day}.",
    "It was a birthday present to myself.",
    "We have shopped with you since {month}.",
    "I wrote the same on {day}, perhaps it got lost.",
)
"""Times and dates that make nothing urgent or less urgent."""

ANGRY = (
    "THIS IS BEYOND A JOKE!!!",
    "I am furious.",
    "What kind of shop is this?",
    "Never again!",
    "Do you even read your mail???",
    "Honestly, a disgrace.",
    "I EXPECT AN ANSWER.",
    "My patience is at an end!",
)
KIND = (
    "You have always been wonderful.",
    "Sorry to bother you.",
    "I hope that you are having a lovely day.",
    "No harm done, these things happen.",
    "I am sure it is my own fault.",
    "Lots of love to the team.",
)
SUBJECTS = ("URGENT", "Urgent!!!", "question", "hello", "my order", "PLEASE READ", "Fwd: order",
            "complaint", "help", "small thing", "Re: Re: your mail", "asap")  # fmt: skip
GREETINGS = ("Hello,", "Hi", "Dear team,", "Good morning,", "Hey there,", "To whom it may concern,",
             "hi all", "Dear Sir or Madam,", "Good evening")  # fmt: skip
WISHES = ("Please sort this out.", "What now?", "Can you help?", "Thank you in advance.",
          "I look forward to hearing from you.", "Please advise.", "Let me know.", "thx",
          "What do you suggest?", "Please see to it.")  # fmt: skip
ENDS = ("Regards, {name}", "{name}", "Best wishes {name}", "Yours, {name} {family}", "- {name}",
        "Kind regards\n{name} {family}", "Sent from my phone", "Cheers")  # fmt: skip

ORDER_SAID = (
    "Order {order}.",
    "It is order {order}.",
    "My order number is {order}.",
    "This is about {order}.",
    "The order: {order}.",
    "(order no {order})",
    "You will find it under {order}.",
    "{order} is the number in your confirmation.",
    "I ordered it as {order}.",
    "order {order} if that helps",
)
ORDER_FORMS = ("{0}{1}", "{0}-{1}", "{0} {1}", "#{0}{1}", "{0}.{1}", "{0}/{1}", "ORD{0}{1}",
               "no. {0}{1}", "{0} - {1}", "#{0} {1}")  # fmt: skip
"""How the two halves of an order's six digits are written."""

OTHER_NUMBERS = (
    "My customer number is {number}.",
    "The parcel service calls it {number}.",
    "You can ring me on 0{short} {number}.",
    "An earlier order, {number}, came without trouble.",
    "The invoice has {number} on it.",
    "The article is {number} in your catalogue.",
    "My neighbour has the same under {number}, hers is in order.",
    "On the phone I was given the case number {number}.",
    "I paid {price} on {day}.",
)
"""Numbers that are not the order's."""
