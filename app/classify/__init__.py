"""One image and some labels to scores: the whole data flow. Knows neither HTTP nor label sets."""
