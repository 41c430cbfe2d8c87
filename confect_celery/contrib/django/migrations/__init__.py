"""Django's migrations of the table: one for each revision of the store's."""
