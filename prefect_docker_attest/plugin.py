"""A plugin of Prefect that loads this package if Python has not read its start-up file.

If plugins are enabled (``PREFECT_PLUGINS_ENABLED=true``; before Prefect 3.7 ``PREFECT_EXPERIMENTS_PLUGINS_ENABLED``),
Prefect imports this module at the end of ``import prefect``.
Importing the module imports the package, which patches the builds. It is too late then to register the setting with
Prefect.
"""
