"""The event store over MongoDB: ``mongodb://``, ``mongodb+srv://``, and ``mongomock://``.

One document is one commit. ``documents.py`` says what stands in it, ``reading.py`` finds and
reads commits (``selecting.py`` which, ``by_time.py`` in time order), ``appending.py`` adds one,
``namespaces.py`` has the collections, ``server.py`` connects, ``backend.py`` puts them together,
``mock.py`` over a fake.
"""

from eventstore_mongodb.backend import MongoBackend
from eventstore_mongodb.mock import MongomockBackend

__all__ = ["MongoBackend", "MongomockBackend"]
