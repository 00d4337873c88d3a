"""An app for MONAI Label that serves the bundles: named points in, named points out.

This folder is what `monailabel start_server --app` takes. Nothing else in this package needs MONAI Label, and importing
this does not either; it runs in an environment of its own (`requirements.txt`).
"""
