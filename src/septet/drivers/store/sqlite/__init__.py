"""The store on SQLite in WAL mode: one writer thread, a few readers, every commit synced."""
