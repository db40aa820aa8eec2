.ONESHELL:
SHELL := bash
VENV := .venv
install: $(VENV)/.installed ## Make .venv: Segundo (editable), every extra, every tool
$(VENV)/.installed: pyproject.toml
	python3.11 -m venv $(VENV)
	$(VENV)/bin/python -m pip install -qq --upgrade 'pip>=25.1'
	$(VENV)/bin/python -m pip install -qq --group dev --editable '.[all]'
	touch $@
