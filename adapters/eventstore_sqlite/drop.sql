-- All that schema.sql made of the log {namespace}; its indexes and triggers go with its tables.
DROP TABLE IF EXISTS main.{namespace}_segments;
DROP TABLE IF EXISTS main.{namespace}_tags;
DROP TABLE IF EXISTS main.{namespace}_entities;
DROP TABLE IF EXISTS main.{namespace}_events;
DROP TABLE IF EXISTS main.{namespace}_log;
