cd /tmp/hub/server; cat parts/0*.py parts/10.py > server.py
P=/work/main/.venv/bin; $P/ruff format -q server.py; $P/ruff check --fix -q server.py; $P/mypy --strict server.py | tail -20; wc -l server.py
