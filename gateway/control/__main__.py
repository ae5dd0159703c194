"""`python -m gateway.control`: what the supervisor starts."""

from gateway.control.main import main
from gateway.process import end

end(main())
