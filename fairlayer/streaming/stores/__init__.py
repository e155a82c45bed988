"""Streams that outlive their process, in a SQLite file or in a PostgreSQL database that workers share."""
