"""The event store over MongoDB: ``mongodb://``, ``mongodb+srv://``, and ``mongomock://``.

One document makes a commit. ``records.py`` says what stands in it, ``keys.py`` what it is looked up
by, ``pieces.py`` takes it apart; ``reading.py`` finds and reads events (``selecting.py`` which,
``walking.py`` along the log, ``by_time.py`` in time order); ``appending.py`` adds a commit;
``opening.py`` has the collections, ``sweeping.py`` tidies them; ``engine.py`` tells what answers.
"""

from eventstore_mongodb.backend import MongoBackend
from eventstore_mongodb.mock import MongomockBackend

__all__ = ["MongoBackend", "MongomockBackend"]
