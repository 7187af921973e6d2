"""`clipwarden pipeline publish`: makes what is installed here the pipeline of new analyses."""

import argparse
from collections.abc import Sequence

from clipwarden.models.pipeline import local_manifest, pipeline_id
from clipwarden.models.weights import bring
from clipwarden.shared.contracts import DetectorState
from clipwarden.shared.settings import load_settings
from clipwarden.shared.store import Store


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="clipwarden pipeline", description=__doc__)
    parser.add_argument("action", choices=["publish"])
    parser.parse_args(argv)
    settings = load_settings()
    settings.need("database_url")
    bring(settings.weights)
    manifest = local_manifest()
    name = pipeline_id(manifest)
    store = Store(settings.database_url, pool_size=1)
    try:
        store.check_schema()
        store.publish(name, manifest)
    finally:
        store.close()
    ready = [d.name for d in manifest.detectors if d.state is DetectorState.READY]
    print(f"published {name}: {', '.join(ready) or 'no detector has weights'}")
    return 0
