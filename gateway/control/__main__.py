"""`python -m gateway.control`: what the supervisor starts."""

from gateway.control.main import main

raise SystemExit(main())
