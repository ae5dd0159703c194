"""`python -m gateway.worker`: what the supervisor starts."""

from gateway.worker.main import main

raise SystemExit(main())
