"""The three papers as data: what they publish, where it stands, and what of it the sources at hand do not hold."""

#: Methods whose paper's text is not at hand → what has to stand wherever their results are shown.
READINGS = {"wang2018": "this project's reading of an abstract, all that is at hand"}
