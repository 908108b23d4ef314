"""The event store over MongoDB: ``mongodb://``, ``mongodb+srv://``, and ``mongomock://``.

One document makes a commit. ``records.py`` says what stands in it, ``reading.py`` finds and
reads events (``selecting.py`` which, ``by_time.py`` in time order), ``appending.py`` adds a commit,
``opening.py`` has the collections, ``sweeping.py`` tidies them, ``connections.py`` connects,
``backend.py`` puts them together, ``mock.py`` over a fake.
"""

from eventstore_mongodb.backend import MongoBackend
from eventstore_mongodb.mock import MongomockBackend

__all__ = ["MongoBackend", "MongomockBackend"]
