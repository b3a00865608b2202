"""What people say in the digit world: every phrase that tasks fill in and vary, few enough to be learned.

Braces are filled by the tasks: `what` is a referring expression or a list of objects.
"""

CAPTION = (
    "Describe the picture.",
    "Describe the image.",
    "What is in the picture?",
    "What is in the image?",
    "What do you see?",
)

REFER = (
    "Where is {what}?",
    "Find {what}.",
    "Locate {what}.",
    "Give the box of {what}.",
    "Show where {what} is.",
)

SEGMENT = (
    "Segment {what}.",
    "Segment {what} in the picture.",
    "Give the mask of {what}.",
    "Cut out {what}.",
    "Please segment {what}.",
)

REMOVE = (
    "Remove {what}.",
    "Erase {what}.",
    "Delete {what}.",
    "Take {what} away.",
    "Please remove {what}.",
)

RECOLOR = (
    "Recolor {what} to {color}.",
    "Make {what} {color}.",
    "Paint {what} {color}.",
    "Change the color of {what} to {color}.",
)

REPLACE = (
    "Replace {what} by {digit}.",
    "Replace {what} with {digit}.",
    "Turn {what} into {digit}.",
    "Change {what} into {digit}.",
)

EDIT = {
    "invert the colors": ("Invert the colors.", "Invert the picture.", "Make a negative of the picture."),
    "make it grayscale": ("Make it grayscale.", "Turn the picture gray.", "Remove all color from the picture."),
    "make it brighter": ("Make it brighter.", "Brighten the picture.", "The picture is too dark."),
    "make it darker": ("Make it darker.", "Darken the picture.", "The picture is too bright."),
    "flip it": ("Flip it.", "Flip the picture left to right.", "Mirror the picture."),
}
"""Canonical instruction of a global edit -> how users ask for it."""

LAYOUT = (
    "Draw {what}.",
    "Arrange {what}.",
    "Place {what}.",
    "Lay out {what}.",
)

GENERATE = (
    "Generate an image of {what}.",
    "Generate a picture of {what}.",
    "Create a picture of {what}.",
    "Show me an image of {what}.",
)

OPENINGS = ("Sure. ", "Okay. ", "Here you are. ", "")
"""How the assistant begins an answer that holds a call."""

QUESTION = {
    "color": ("What color is the {digit}?", "Which color does the {digit} have?"),
    "digit": ("Which digit is {color}?", "What is the {color} digit?"),
    "exists": ("Is there a {name}?", "Do you see a {name}?"),
    "count": ("How many digits are there?", "How many digits do you see?"),
    "count_color": ("How many {color} digits are there?", "How many digits are {color}?"),
    "extreme": ("Which digit is {side}?", "Which is the {side} digit?"),
    "relation": ("Is {first} {relation} {second}?",),
    "sum": ("What is the sum of the digits?", "Add all digits."),
    "largest": ("What is the largest digit?", "Which digit is the largest?"),
    "smallest": ("What is the smallest digit?", "Which digit is the smallest?"),
}
"""Kind of question -> how it is asked."""

RELATIONS = {"left": "to the left of", "right": "to the right of", "top": "above", "bottom": "below"}
"""Name of a relation -> its words."""

PLACES = (
    "at the top left",
    "at the top",
    "at the top right",
    "on the left",
    "in the center",
    "on the right",
    "at the bottom left",
    "at the bottom",
    "at the bottom right",
)
"""Words of the places of a 3 x 3 grid, in raster order."""

SIDES = ("leftmost", "rightmost", "top", "bottom")

SUM_OF_OTHERS = "the digit that is the sum of the other two"

SCENE = "scene:"
"""Begins a scene that is given in words."""


def all_phrases() -> list[str]:
    """Every phrase of this file, for listing the vocabulary."""
    lists = [CAPTION, REFER, SEGMENT, REMOVE, RECOLOR, REPLACE, LAYOUT, GENERATE, OPENINGS, PLACES, SIDES]
    lists += [*EDIT.values(), tuple(EDIT), *QUESTION.values(), tuple(RELATIONS.values())]
    return [phrase for phrases in lists for phrase in phrases] + [SUM_OF_OTHERS]
