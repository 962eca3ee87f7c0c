"""What a project keeps, all under `PROJECT/.overproof`; `project_store.open_store` opens it."""
